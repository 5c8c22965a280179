"""What msgspec raises for bytes that it cannot decode; text that is no UTF-8 is none of its own errors."""

import msgspec

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError)
