"""The one kind of error that is made for users: it says what is wrong, what was got and the fix."""


class UserError(ValueError):
    """Something the user can mend. Stages print it as one line and end with status 2.

    Any other exception is a fault of the program and keeps its traceback.
    """
