"""What can go wrong with a training, in words for the person who started it."""


class InputError(Exception):
    """Something that was given cannot be used.

    The text is one line that names the file, the line or the key, and says what would be right.
    Command lines print it and leave with exit code 2.
    """


class DivergedError(Exception):
    """The loss of a training stopped being a finite number.

    Attributes:
        step: the training step at which it happened, counted from 1.
        task: the name of the task of that step's batch.
    """

    def __init__(self, step: int, task: str, loss: float) -> None:
        super().__init__(f"the loss became {loss} at step {step} (task {task})")
        self.step = step
        self.task = task
        self.loss = loss

    def __reduce__(self):
        return type(self), (self.step, self.task, self.loss)


class TrainingStopped(Exception):
    """A training was asked to stop; its checkpoint has been written and it can be resumed."""
