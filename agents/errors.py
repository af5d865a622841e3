"""What can go wrong on the user's side of a training run; ``training.command`` turns each into one line."""


class CheckpointError(RuntimeError):
    """A checkpoint is missing, unreadable, or does not fit what it is asked to do."""


class DamagedCheckpointError(CheckpointError):
    """A file of a checkpoint is missing, or is not what was written; an older checkpoint may be whole."""


class RunFolderError(RuntimeError):
    """A run folder cannot be written, or is not in the state that was asked for."""


class JobError(RuntimeError):
    """Another process of the job is gone, or failed first."""
