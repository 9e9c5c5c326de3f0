# SPDX-License-Identifier: Apache-2.0
"""A process that writes a bag until it is killed: `python bag_victim.py FOLDER CHUNK_BYTES`.

Prints the number of each message once the writer has taken it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bag_samples import STRING, about, text_message
from twinloop.bags import EpisodeWriter


def main() -> None:
    writer = EpisodeWriter(Path(sys.argv[1]), about(), chunk_bytes=int(sys.argv[2]))
    number = 0
    while True:
        writer.write_raw("/text", STRING, text_message(f"{number:0500d}"), number)
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        number += 1


if __name__ == "__main__":
    main()
