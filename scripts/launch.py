"""``accelerate launch``, leaving with the training's own exit code in the place of a traceback of the launcher's."""

from __future__ import annotations

import logging
import subprocess
import sys

from accelerate.commands.launch import main
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

if __name__ == "__main__":
    logging.getLogger("torch.distributed.elastic").setLevel(
        logging.CRITICAL
    )  # the training has told its error itself
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode if error.returncode > 0 else 128 - error.returncode)
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        sys.exit(code if code > 0 else 128 - code)
    except SignalException as error:
        sys.exit(128 + error.sigval)
