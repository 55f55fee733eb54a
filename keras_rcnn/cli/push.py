"""`keras-rcnn push`: a preset's folder, published on Hugging Face or Kaggle."""

import argparse

from keras_rcnn.cli.output import say

HELP = "publish a preset on Hugging Face or Kaggle"
DESCRIPTION = (
    "Uploads a preset with a model card, after checking that it loads and says its licence. You log in by the hub's "
    "own means: `hf auth login` or HF_TOKEN; kagglehub.login() or KAGGLE_API_TOKEN."
)
METADATA = ("license", "title", "source", "notes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("folder", metavar="DIR", help="folder that train or convert has left")
    parser.add_argument(
        "handle", metavar="HANDLE", help="hf://USER/REPO[@BRANCH][/FOLDER] or kaggle://OWNER/MODEL/keras/VARIATION"
    )
    parser.add_argument(
        "--private",
        action=argparse.BooleanOptionalAction,
        help="who sees it; default: as the hub has it (Hugging Face: everybody, Kaggle: you)",
    )
    parser.add_argument("--message", metavar="TEXT", help="what the commit or version is called")
    parser.add_argument("--license", metavar="NAME", help="Apache-2.0 for instance; default: what preset.json says")
    parser.add_argument("--title", metavar="TEXT", help="what the preset is, in a few words")
    parser.add_argument("--source", metavar="TEXT", help="where data and weights come from")
    parser.add_argument("--notes", metavar="TEXT", help="what else there is to know")


def run(args: argparse.Namespace) -> None:
    """Publishes a preset."""
    from keras_rcnn.hub_push import push_preset

    metadata = {key: getattr(args, key) for key in METADATA if getattr(args, key) is not None}
    address = push_preset(args.folder, args.handle, private=args.private, message=args.message, **metadata)
    say(f"{args.folder} is published: {address}\nkeras-rcnn detect photo.jpg --preset {args.handle}")
