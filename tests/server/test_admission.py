"""Client addresses are remembered for a limited time, and only a limited number of them."""

from app.server.admission import REST_SECONDS, Admission
from app.server.limits import Limits


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def address_of(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def test_an_address_that_has_rested_is_forgotten_when_others_come() -> None:
    time = Time()
    admission = Admission(Limits(), now=time)
    for number in range(50):
        admission.release(admission.hold(address_of(number)))
    assert admission.addresses == 50
    time.now += REST_SECONDS + 1
    for number in range(50, 100):
        admission.release(admission.hold(address_of(number)))
    assert admission.addresses <= 51


def test_a_flood_of_addresses_costs_a_bounded_number_and_no_address_that_is_connected() -> None:
    admission = Admission(Limits(), now=Time(), addresses_remembered=100)
    connected = [admission.hold(address_of(number)) for number in range(10)]
    for number in range(10, 5000):
        admission.release(admission.hold(address_of(number)))
        assert admission.addresses <= 101
    assert all(admission.hold(address.name) is address for address in connected)


def test_the_sockets_of_one_address_take_turns_and_all_get_theirs_in_seconds() -> None:
    admission = Admission(Limits(sockets_per_address=200), now=Time())
    delays = [admission.handshake_delay(admission.hold("192.0.2.1")) for _ in range(200)]
    assert delays[:40] == [0.0] * 40
    assert 1.0 < (delays[-1] or 0.0) < 5.0
    assert admission.handshake_delay(admission.hold("192.0.2.2")) == 0.0
