"""The one error that users cause and can mend."""


class InputError(ValueError):
    """Bad input at a boundary: a file, a config value, a bundle, a request.

    Its message is one line that says what was expected, what was found and what to do. Entry points
    print it without a traceback and exit with status 2; the HTTP application answers 4xx.
    """

    def __init__(self, expected: str, found: str, remedy: str) -> None:
        self.expected = expected
        self.found = found
        self.remedy = remedy
        super().__init__(f"expected {expected}; found {found}; {remedy}")

    def __reduce__(self) -> tuple[object, ...]:
        # Pickled, as on its way from one process to another, with its three parts.
        return type(self), (self.expected, self.found, self.remedy), self.__dict__
