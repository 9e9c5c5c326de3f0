# SPDX-License-Identifier: Apache-2.0
"""`twinloop calibrate`: cameras' lenses, the rig between them, and where it is on the hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from twinloop.cli.errors import CommandError
from twinloop.cli.options import AsJson

app = typer.Typer(help="Calibrate cameras from pictures of a printed board.")

BOARD_HELP = (
    "What is printed: charuco:<squares across>x<down>:<square mm>:<marker mm>, or "
    "chessboard:<inner corners across>x<down>:<square mm>."
)
BoardText = Annotated[str, typer.Option("--board", help=BOARD_HELP, show_default=False)]
Images = Annotated[
    Path | None,
    typer.Option(help="Folder with left/ and right/, pairs by name.", show_default=False),
]
Bag = Annotated[
    Path | None, typer.Option(help="Bag with stereo/left and stereo/right.", show_default=False)
]
Namespace = Annotated[str, typer.Option(help="Of the live topics.", show_default=False)]
Compressed = Annotated[bool, typer.Option(help="Live topics are the compressed ones.")]
Rate = Annotated[float, typer.Option(help="Live pictures a second.", min=0.5, max=500.0)]
Timeout = Annotated[float, typer.Option(help="Longest live session, seconds.", min=1.0)]
Out = Annotated[Path, typer.Option(help="Folder for left.yaml, right.yaml and mount.yaml.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a calibration that is there.")]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        "--run", help="Folder for the report; under runs/ by default.", show_default=False
    ),
]
_OUT = Path("calibration")


@app.command("board")
def board_command(
    out: Annotated[Path, typer.Argument(help="Such as board.pdf or board.png.")],
    board: BoardText = "charuco:8x5:32:24",
    paper: Annotated[str, typer.Option(help="A4, A3 or letter, landscape.")] = "A4",
) -> None:
    """Draw a board to print at 100%. Glue it onto something flat and stiff."""
    from twinloop.perception.calibration.printing import print_board

    made = board_or_refuse(board)
    if out.exists():
        raise CommandError(f"{out} is there already; remove it, or name another file")
    try:
        print_board(made, out, paper)
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from error
    Console().print(
        f"{out}: print it at 100%, measure its ruler, and calibrate with --board {made.text}",
        soft_wrap=True,
        highlight=False,
    )


@app.command("stereo")
def stereo_command(
    board: BoardText,
    images: Images = None,
    bag: Bag = None,
    out: Out = _OUT,
    distortion: Annotated[
        str, typer.Option(help="plumb_bob, or rational_polynomial for very wide lenses.")
    ] = "plumb_bob",
    views: Annotated[int, typer.Option(help="Live views to take at least.", min=10)] = 20,
    namespace: Namespace = "",
    compressed: Compressed = False,
    rate: Rate = 30.0,
    timeout: Timeout = 600.0,
    force: Force = False,
    run: RunFolder = None,
    as_json: AsJson = False,
) -> None:
    """Calibrate both lenses of a stereo camera and the rig between them.

    From a folder of pictures, from a bag, or live: hold up the board, tilt it to all sides, near
    and far, all over both pictures.
    """
    from twinloop.cli.calibration_runs import Live, Session, Source, save_set
    from twinloop.perception.calibration.checks import Promise
    from twinloop.perception.calibration.diversity import missing
    from twinloop.perception.calibration.stereo import calibrate_stereo
    from twinloop.perception.calibration.views import View
    from twinloop.perception.camera_model import to_yaml
    from twinloop.perception.stereo_pairs import EYES
    from twinloop.reporting.calibration import stereo_figures

    named = board_or_refuse(board)
    files = [out / f"{eye}.yaml" for eye in EYES]
    refuse_to_replace(files, force)
    live = Live(namespace, compressed, rate, timeout, views)
    session = Session("calibrate-stereo", named, Source(images, bag, live), run, as_json, joints=())

    def lacking(taken: Sequence[View]) -> list[str]:
        return missing(named, taken, EYES)

    found = session.solve(lambda taken: calibrate_stereo(named, taken, distortion), lacking)
    cameras = (found.model.left, found.model.right)
    texts = {path: to_yaml(camera) for path, camera in zip(files, cameras, strict=True)}
    save_set(texts)
    stale = out / "mount.yaml"
    session.finish(
        stereo_figures(found, Promise()),
        found.views,
        found.fit.residuals,
        files,
        f"{stale} is of the calibration before: run 'twinloop calibrate hand-camera' again"
        if stale.exists()
        else "",
    )


@app.command("hand-camera")
def hand_camera_command(
    board: BoardText,
    board_pose: Annotated[
        Path | None,
        typer.Option(
            help="File with the board's place on the hand's mount, or on another link.",
            show_default=False,
        ),
    ] = None,
    board_on: Annotated[
        str | None,
        typer.Option(
            help="Link that the board is fixed on anyhow, such as rh_palm.", show_default=False
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder with left/, right/ and, where the link moves, joints.csv.",
            show_default=False,
        ),
    ] = None,
    bag: Bag = None,
    out: Out = _OUT,
    cameras: Annotated[
        Path | None,
        typer.Option(
            help="Folder with left.yaml and right.yaml; --out by default.", show_default=False
        ),
    ] = None,
    side: Annotated[str, typer.Option(help="Of the hand: right or left.")] = "right",
    camera_frame: Annotated[
        str, typer.Option(help="Frame of the left camera.")
    ] = "camera_left_optical",
    views: Annotated[
        int | None,
        typer.Option(help="Live views; 5, or 20 where the link moves.", min=1, show_default=False),
    ] = None,
    namespace: Namespace = "",
    compressed: Compressed = False,
    rate: Rate = 30.0,
    timeout: Timeout = 600.0,
    force: Force = False,
    run: RunFolder = None,
    as_json: AsJson = False,
) -> None:
    """Find where the cameras are on the hand's mount, from a ChArUco board on the hand.

    Either the board is at a place that was measured (--board-pose: a file with parent_frame,
    child_frame, position and quaternion), or it is fixed anyhow on a link that moves (--board-on),
    whose joints are then moved from view to view.
    """
    from twinloop.cli.calibration_runs import Live, Session, Source, save_set
    from twinloop.perception.calibration.boards import Charuco
    from twinloop.perception.calibration.hand_camera import (
        MountPromise,
        calibrate_mount,
        missing_motion,
    )
    from twinloop.perception.calibration.link import Link
    from twinloop.perception.calibration.views import View
    from twinloop.perception.camera_model import StereoModel, load_camera
    from twinloop.perception.mount import load_mount, mount_from_urdf, to_yaml
    from twinloop.perception.stereo_pairs import EYES
    from twinloop.reporting.calibration import mount_figures
    from twinloop.robots.description import hand_urdf, joint_prefix

    named = board_or_refuse(board)
    if not isinstance(named, Charuco):
        raise CommandError(
            f"board {board}: a chessboard looks alike upside down, expected a ChArUco board"
        )
    if (board_pose is None) == (board_on is None):
        raise CommandError(
            "name either --board-pose, a file with the board's place, or --board-on, a link that "
            "moves"
        )
    path = out / "mount.yaml"
    refuse_to_replace([path], force)
    try:
        pair = StereoModel(*(load_camera((cameras or out) / f"{eye}.yaml") for eye in EYES))
        urdf, frame = hand_urdf(side), f"{joint_prefix(side)}forearm"
        place = None if board_pose is None else load_mount(board_pose)
        link = Link(urdf, frame, board_on or (place.parent if place else ""))
    except FileNotFoundError as error:
        raise CommandError(
            f"{error.filename} is not there; 'twinloop calibrate stereo' writes left.yaml and "
            "right.yaml"
        ) from error
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from error
    known = None if place is None else place.transform
    is_fixed = not link.joints
    live = Live(namespace, compressed, rate, timeout, views or (5 if is_fixed else 20))
    session = Session(
        "calibrate-hand-camera", named, Source(images, bag, live), run, as_json, link.joints
    )

    def lacking(taken: Sequence[View]) -> list[str]:
        return missing_motion(taken, link) if known is None else []

    found = session.solve(
        lambda taken: calibrate_mount(named, taken, pair, link, known, camera_frame),
        lacking,
        is_fixed=is_fixed,
    )
    save_set({path: to_yaml(found.mount)})
    try:
        nominal = mount_from_urdf(urdf, frame, camera_frame)
    except ValueError:  # a camera that the description does not have
        nominal = None
    figures = mount_figures(found, MountPromise(), nominal)
    session.finish(figures, found.views, found.estimate.residuals, [path])


def board_or_refuse(text: str) -> Any:
    """Return the board that a text names; raises CommandError."""
    from twinloop.perception.calibration.boards import parse_board

    try:
        return parse_board(text)
    except (ValueError, RuntimeError) as error:
        raise CommandError(str(error)) from error


def refuse_to_replace(files: list[Path], force: bool) -> None:
    """Refuse to overwrite a calibration; raises CommandError."""
    present = [str(path) for path in files if path.exists()]
    if present and not force:
        raise CommandError(
            f"{' and '.join(present)} {'is' if len(present) == 1 else 'are'} there already: name "
            "another folder by --out, or replace by --force"
        )
