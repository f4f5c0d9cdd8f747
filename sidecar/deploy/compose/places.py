"""Where things lie in the containers of a compose project, and what they are called. No more than constants: this is
read inside the containers too, where nothing of the transformation is loaded.
"""

from __future__ import annotations

from typing import Final

from sidecar.deploy import names

FOLDER: Final = ".mesh"  # what we write beside the user's file
CONFIG_AT: Final = "/etc/mesh/project"  # beside the image's own CONFIG_PATH, which nobody mounts here
CONFIG_FILE: Final = f"{CONFIG_AT}/mesh.yaml"
KEY_AT: Final = "/etc/mesh/enrolment"
KEY_FILE: Final = "enrolment.json"
KEYS_AT: Final = f"{names.STATE_PATH}-keys"
PASSPHRASE_AT: Final = f"{names.STATE_PATH}-passphrase"
PASSPHRASE_FILE: Final = f"{PASSPHRASE_AT}/passphrase"
CA_DIR: Final = f"{names.STATE_PATH}/ca"

CA, KEYS = "mesh-ca", "mesh-keys"  # services of ours, and what we add to the names of the user's
HOLDER, SIDECAR, DOOR = "-holder", "-sidecar", "-edge"
CA_VOLUME, PASSPHRASE_VOLUME, KEY_VOLUME, STATE_VOLUME = "mesh-ca", "mesh-passphrase", "mesh-key-", "mesh-state-"

PART: Final = f"{names.PREFIX}/part"  # our own mark on what we add: holder, sidecar, door, ca, keys, volume
OF: Final = f"{names.PREFIX}/of"
