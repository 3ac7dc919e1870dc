from bids_tractography.api import Tractogram as Tractogram
from bids_tractography.api import read_config as read_config
from bids_tractography.api import read_tractogram as read_tractogram
from bids_tractography.api import run as run
from bids_tractography.api import track as track
from bids_tractography.app.outcome import Failure as Failure
from bids_tractography.app.outcome import Skipped as Skipped
from bids_tractography.app.request import Request as Request
from bids_tractography.config import Config as Config
from bids_tractography.errors import TractographyError as TractographyError
from bids_tractography.outputs.run import read_record as read_record
from bids_tractography.phantom import write_phantom as write_phantom
from bids_tractography.pipeline.process import Done as Done

__version__: str
BIDS_VERSION: str
__all__: list[str]
