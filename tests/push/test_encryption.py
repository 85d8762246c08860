"""Messages for push services, read with an independent implementation, which is tested with the RFC's example."""

from cryptography.hazmat.primitives.asymmetric import ec

from app.domain.push import Language, Subscription
from app.parts import utc_now
from app.push.encryption import Encryption, origin_of, public_point, shared_secret
from app.settings import vapid_key
from tests.push.push_service import Keys, checked_claims

KEY = vapid_key.new_private_key()


def subscription_of(keys: Keys, endpoint: str) -> Subscription:
    return Subscription(
        user_id="ada",
        name="phone",
        endpoint=endpoint,
        origin=origin_of(endpoint),
        p256dh=vapid_key.encoded(keys.public),
        auth=vapid_key.encoded(keys.auth),
        language=Language.EN,
        created_at=utc_now(),
        renewed_at=utc_now(),
    )


def test_the_reader_reads_the_example_of_rfc_8291() -> None:
    private = int.from_bytes(vapid_key.decoded("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"), "big")
    keys = Keys(ec.derive_private_key(private, ec.SECP256R1()), vapid_key.decoded("BTBZMqHH6r4Tts7J_aSIgg"))
    body = vapid_key.decoded(
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl"
        "7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )
    assert keys.decrypted(body) == b"When I grow up, I want to be a watermelon"


def test_a_message_is_for_one_browser_and_signed_for_one_origin() -> None:
    encryption = Encryption(KEY, "https://queue.example/contact")
    for endpoint, origin in (
        ("https://push.example/send/x", "https://push.example"),
        ("https://Push.example:8443/send/x", "https://push.example:8443"),
        ("http://[::1]:9000/x", "http://[::1]:9000"),
    ):
        keys = Keys()
        headers, body = encryption.encrypted("Grüße".encode(), subscription_of(keys, endpoint), 90)
        assert keys.decrypted(body) == "Grüße".encode()
        assert (headers["ttl"], headers["content-encoding"]) == ("90", "aes128gcm")
        claims = checked_claims(headers["authorization"], vapid_key.public_text(KEY))
        assert (claims["aud"], claims["sub"]) == (origin, "https://queue.example/contact")


def test_no_two_messages_have_a_key_in_common() -> None:
    encryption, subscription = (
        Encryption(KEY, "mailto:ops@queue.example"),
        subscription_of(Keys(), "https://p.example/x"),
    )
    bodies = [encryption.encrypted(b"the same", subscription, 60)[1] for _ in range(20)]
    assert len({body[:16] for body in bodies}) == len({body[21:86] for body in bodies}) == 20


def test_valid_keys_are_stored_in_one_form_and_invalid_ones_are_recognised() -> None:
    keys = Keys()
    point, secret = vapid_key.encoded(keys.public), vapid_key.encoded(keys.auth)
    assert public_point(point + "=") == public_point(point) == point
    assert shared_secret(secret + "==") == shared_secret(secret) == secret
    off_the_curve = vapid_key.encoded(b"\4" + b"\1" * 64)
    compressed = vapid_key.encoded(b"\2" + keys.public[1:33])
    for wrong in ("", "ä", "!!!!", point[:-4], point + "AAAA", off_the_curve, compressed, secret):
        assert public_point(wrong) is None
    for wrong in ("", "ä", "====", secret[:-2], secret + "AAAA", point):
        assert shared_secret(wrong) is None
