"""The user study of Sec. 5.5: one page that asks "does the video look natural?", and Table 3 from its answers.

    python -m evaluation.study make --videos DIR --output STUDY.html           # DIR/METHOD/CLIP.mp4
    python -m evaluation.study score --answers FOLDER --key STUDY.key.json --output results/study

STUDY.html holds everything, asks for nothing from outside, and knows the videos by salted hashes only; STUDY.key.json,
written beside it, tells which is which and stays with whoever runs the study. The paper had 4 clips of 5 methods and 33
participants. Each participant sees all videos in a random order of their own and saves a file of answers at the end.
"""

import argparse
import sys
from pathlib import Path

from datasets.errors import DataError
from engine.command import clean_exit
from evaluation import EvaluationError
from evaluation.study.answers import score_answers
from evaluation.study.page import make_page


def main() -> None:
    arguments = parse_arguments()
    with clean_exit(DataError, EvaluationError):
        if arguments.command == "make":
            key_path, count = make_page(
                arguments.videos, arguments.output, arguments.title, arguments.methods, arguments.clips
            )
            print(f"{arguments.output}: {count} videos, {arguments.output.stat().st_size / 1e6:.1f} MB; hand it out")
            print(f"{key_path}: tells which video is which; keep it, and to yourself")
        else:
            for sentence in score_answers(arguments.answers, arguments.key, arguments.output):
                print(f"refused: {sentence}", file=sys.stderr)
            print((arguments.output / "study.md").read_text(encoding="utf-8"), end="")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make", help="write the page and its key")
    maker.add_argument("--videos", type=Path, required=True, help="folder of METHOD/CLIP.mp4 (H.264)")
    maker.add_argument("--output", type=Path, required=True, help="the page to write, e.g. STUDY.html")
    maker.add_argument("--methods", nargs="+", help="default: every folder")
    maker.add_argument("--clips", nargs="+", help="default: every clip; the paper took 4")
    maker.add_argument("--title", default="Talking people: a short study", help="heading of the page")
    scorer = commands.add_parser("score", help="turn files of answers into Table 3")
    scorer.add_argument("--answers", type=Path, nargs="+", required=True, help="files, or folders of them")
    scorer.add_argument("--key", type=Path, required=True, help="STUDY.key.json")
    scorer.add_argument("--output", type=Path, required=True, help="folder for study.json and study.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
