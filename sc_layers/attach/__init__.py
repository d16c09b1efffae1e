"""Spatial constriction inside the generators of other code bases."""

from .constriction import RECORD as RECORD
from .constriction import AttachedGenerator as AttachedGenerator
from .constriction import AttachedSampler as AttachedSampler
from .constriction import attach_like as attach_like
from .constriction import attach_spatial_constriction as attach_spatial_constriction
from .constriction import attachment_of as attachment_of
from .constriction import codes_apart as codes_apart
from .constriction import codes_of as codes_of
from .constriction import codes_rejoined as codes_rejoined
from .constriction import constriction_parameters as constriction_parameters
from .constriction import detach_spatial_constriction as detach_spatial_constriction
from .constriction import draw_latent as draw_latent
from .constriction import images_and_masks as images_and_masks
from .constriction import masks_of as masks_of
from .constriction import num_codes as num_codes
from .constriction import traverse as traverse
from .constriction import widen as widen
from .constriction import with_codes as with_codes
