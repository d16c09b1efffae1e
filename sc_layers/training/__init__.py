"""Training of the PS-SC GAN: settings, the step, the loop around it, snapshots."""

from .config import TRAINING_PRESETS as TRAINING_PRESETS
from .config import TrainingConfig as TrainingConfig
from .config import training_preset as training_preset
from .loop import Interrupted as Interrupted
from .loop import train as train
from .run_dir import create_run_dir as create_run_dir
from .snapshots import resume_training as resume_training
from .step import TrainingState as TrainingState
from .step import training_step as training_step
