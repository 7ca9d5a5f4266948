"Draws `plan.png`, the picture in the README: the plan of a text classifier over seven epochs"
from pathlib import Path

from fastai_discrim.all import GradualUnfreezing, Phase, Plan, discriminative_lrs

names = ['encoder', 'rnns.0', 'rnns.1', 'rnns.2', 'head']
plan = Plan([Phase(n, groups, discriminative_lrs(1e-2, 5)) for n,groups in GradualUnfreezing(1).fill(5, 7)], names)
plan.plot(figsize=(7, 4.2), yscale='linear')[0].figure.savefig(Path(__file__).with_suffix('.png'), dpi=110)
