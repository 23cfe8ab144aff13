"""Why an address cannot be given out."""


class AddressError(Exception):
    """Base. The message says what was asked for, why not, and the remedy."""


class NoAddressError(AddressError):
    """No pool has an address left for this request: the same request may succeed later."""


class AddressTakenError(AddressError):
    """A certain address was asked for, and somebody else holds it: the same request may succeed later."""


class BadRequestError(AddressError):
    """The request names a pool that does not exist, or an address that no pool may give it: repeating it
    unchanged does not help."""
