"""Networks in files: reading any supported format without running anything from it, and writing ours."""

from .errors import CheckpointError as CheckpointError
from .errors import UntrustedCheckpointError as UntrustedCheckpointError
from .networks import NetworkRecord as NetworkRecord
from .read import load_network as load_network
from .read import read_contents as read_contents
from .write import save_network as save_network
from .write import write_contents as write_contents
