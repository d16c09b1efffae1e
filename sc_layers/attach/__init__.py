"""Spatial constriction inside the generators of other code bases.

`attach_spatial_constriction` and `detach_spatial_constriction` add it and take it away; `codes_of` and `with_codes`
read and set the codes in w; `masks_of`, `images_and_masks` and `traverse` show what they do.
"""

from .attachment import RECORD as RECORD
from .attachment import attachment_of as attachment_of
from .attachment import is_attached as is_attached
from .attachment import num_codes as num_codes
from .attachment import spread as spread
from .codes import codes_of as codes_of
from .codes import widen as widen
from .codes import with_codes as with_codes
from .constriction import attach_like as attach_like
from .constriction import attach_spatial_constriction as attach_spatial_constriction
from .constriction import constriction_layers as constriction_layers
from .constriction import constriction_parameters as constriction_parameters
from .constriction import copy_constriction as copy_constriction
from .constriction import detach_spatial_constriction as detach_spatial_constriction
from .directed import DirectedGenerator as DirectedGenerator
from .directed import find_directions as find_directions
from .spaces import ForeignSpace as ForeignSpace
from .spaces import OwnSpace as OwnSpace
from .spaces import Space as Space
from .views import AttachedGenerator as AttachedGenerator
from .views import AttachedSampler as AttachedSampler
from .views import SeededGenerator as SeededGenerator
from .views import draw_latent as draw_latent
from .views import images_and_masks as images_and_masks
from .views import masks_of as masks_of
from .views import traverse as traverse
