"""The negotiation of permessage-deflate (RFC 7692): which offers of a client we accept, and how."""

from collections.abc import Sequence

from websockets.exceptions import NegotiationError
from websockets.extensions.base import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.typing import ExtensionParameter

from app.wire.websocket import DEFLATE_WINDOW_BITS


class SharedDeflate(ServerPerMessageDeflateFactory):
    """The library's, without context takeover in either direction, for offers that our shared frames satisfy.

    A compressed frame is made once for all connections, with a window of DEFLATE_WINDOW_BITS. An offer of a smaller one
    is declined, and the connection is an uncompressed one.
    """

    def __init__(self) -> None:
        super().__init__(server_no_context_takeover=True, client_no_context_takeover=True)

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        """The library's answer. Raises NegotiationError for an offer to be declined."""
        answer, extension = super().process_request_params(params, accepted_extensions)
        if extension.local_max_window_bits < DEFLATE_WINDOW_BITS:
            raise NegotiationError("the window is too small for frames that are made once for everybody")
        return answer, extension
