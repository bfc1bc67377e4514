"""Make a talking-head video from one picture and one sound file (Fig. 2).

    python inference.py --image FACE.jpg --audio SPEECH.wav            # the small demo model; FACE_SPEECH.mp4
    python inference.py --image FACE.jpg --audio SPEECH.wav --checkpoint audio2head.safetensors --output OUT.mp4
    python inference.py --pairs LIST.csv --checkpoint ...              # many; columns image,audio,output and options
    python inference.py --image FOLDER --audio SPEECH.wav --output FOLDER ...     # every picture (or every sound)
    arecord -f S16_LE -r 16000 | python inference.py --image FACE.jpg --audio - --stream - | ffplay -i -     # live
    torchrun --nproc_per_node 4 inference.py --pairs LIST.csv ...      # the rows shared among four GPUs

Every output is marked as synthetic; `python -m datasets.provenance OUT.mp4` shows how.
"""

import argparse
from dataclasses import fields
from pathlib import Path

from animation.job import Job
from animation.options import add_arguments


def main() -> None:
    arguments = parse_arguments()
    from animation.command import make  # brings torch: for that, --help and mistyped options need not wait

    make(arguments)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    files = parser.add_argument_group("files")
    files.add_argument(
        "--image",
        type=Path,
        help="picture of a person: JPEG, PNG, HEIC, WebP ..., or a video's first, or a folder of them",
    )
    files.add_argument(
        "--audio",
        type=Path,
        help="speech: wav, mp3, flac, m4a, a video's sound track ..., or a folder; -: standard input, a wav or raw "
        "16-bit little-endian samples, as they come (with --stream)",
    )
    files.add_argument(
        "--checkpoint",
        type=Path,
        nargs="+",
        help="weights: .safetensors files, run folders of the training stages, or released .pth.tar files; "
        "several are merged, a later one wins (default: the small demo model of this project)",
    )
    files.add_argument(
        "--output", type=Path, help="mp4 to write, or a short preview as gif (default: named after the inputs)"
    )
    files.add_argument(
        "--stream", type=Path, help="mp4 that plays while it grows, in place of --output; - for standard output"
    )
    files.add_argument(
        "--audio-rate", type=int, default=16_000, help="of --audio - without a wav's header, Hz (default: 16000)"
    )
    files.add_argument("--audio-channels", type=int, default=1, help="of the same, 1 or 2 (default: 1)")
    files.add_argument(
        "--pairs", type=Path, help="CSV with the columns image,audio,output and, if wanted, options: one video a row"
    )
    files.add_argument("--overwrite", action="store_true", help="of a list, make also what is there and whole")
    files.add_argument("--report", type=Path, help="of a list, add to this file what became of each row, as JSON lines")
    files.add_argument("--config", type=Path, help="YAML with the options below; the command line wins")
    files.add_argument("--frames-dir", type=Path, help="also write every frame as a PNG into this folder")
    files.add_argument("--save-motion", type=Path, help="also write head poses and keypoints to this .npz")
    files.add_argument("--motion", type=Path, help="render a saved motion (.npz); no audio networks are needed")
    files.add_argument(
        "--head-pose",
        type=Path,
        help="drive with these head poses: .npz (head_pose [T,6]), OpenFace .csv, or those of a video",
    )
    files.add_argument("--c2pa-cert", type=Path, help="PEM certificate chain: add a signed C2PA manifest")
    files.add_argument("--c2pa-key", type=Path, help="PEM private key of that certificate")
    add_arguments(parser.add_argument_group("options"))
    arguments = parser.parse_args()
    if arguments.pairs is None and arguments.image is None:
        parser.error("give --image (and --audio), or --pairs")
    if arguments.pairs is not None:
        for name in (each.name for each in fields(Job)):
            if getattr(arguments, name) is not None:
                parser.error(f"--pairs takes its files from the list; leave out --{name.replace('_', '-')}")
    if arguments.audio is None and arguments.motion is None and arguments.pairs is None:
        parser.error("give --audio (only --motion does without)")
    if (arguments.c2pa_cert is None) != (arguments.c2pa_key is None):
        parser.error("--c2pa-cert and --c2pa-key go together")
    return arguments


if __name__ == "__main__":
    main()
