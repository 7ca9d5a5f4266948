"""What `layerwise_split` makes of the models that torchvision, timm and transformers have: how many are split, how deep they are, which are
refused and why. They are made at their default size without memory (`torch.device('meta')`), so that no weights are needed and nothing is
downloaded. Each parameter has to be in exactly one group. It takes two minutes."""
import argparse
import json
import warnings
from collections import Counter

import torch
from fastcore.foundation import L
from fastprogress.fastprogress import progress_bar

from fastai_discrim.all import layerwise_split


def torchvision_models():
    "Every model of torchvision's, but for quantized ones, which don't train"
    import torchvision.models as tv
    for name in tv.list_models():
        if not name.startswith('quantized'): yield name,lambda name=name: tv.get_model(name, weights=None, **backbone(name))

def backbone(name):
    "What keeps detection and segmentation models from a download"
    return dict(weights_backbone=None) if any(o in name for o in ('rcnn', 'retina', 'ssd', 'fcos', 'deeplab', 'fcn', 'lraspp')) else {}

def timm_models(each):
    "The first `each` models of each of timm's families"
    import timm
    seen = Counter()
    for name in timm.list_models():
        family = timm.model_entrypoint(name).__module__
        seen[family] += 1
        if seen[family] <= each: yield name,lambda name=name: timm.create_model(name, pretrained=False)

def transformers_models():
    "Every model of transformers for classifying text or images, or for filling in what is masked"
    from transformers.models.auto import modeling_auto as auto
    for kind in ('SEQUENCE_CLASSIFICATION', 'IMAGE_CLASSIFICATION', 'MASKED_LM'):
        for cfg,cls in getattr(auto, f'MODEL_FOR_{kind}_MAPPING').items():
            for c in L(cls, use_list=isinstance(cls, tuple)): yield c.__name__,lambda cfg=cfg, c=c: c(with_padding(cfg()))

def with_padding(cfg):
    "`cfg`, so that a batch can be padded"
    if getattr(cfg, 'pad_token_id', 0) is None: cfg.pad_token_id = 0
    return cfg

def look(make):
    "What becomes of one model: 'split', 'refused' or 'not made', and the number of layers or the reason"
    try:
        try:
            with torch.device('meta'): model = make()
        # Its weights are looked at while it is made
        except NotImplementedError: model = make()
    # Some need a package, a configuration or memory that isn't there: nothing that concerns us
    except Exception as e: return 'not made',f'{type(e).__name__}: {e}'
    try: groups = layerwise_split(model)
    except ValueError as e: return 'refused',str(e)
    params = [p for g in groups for p in g]
    if len(params) != len(set(params)) or set(params) != set(model.parameters()): return 'wrong',len(groups)
    return 'split',len(groups)

def main():
    "Look at all of them, and print a table"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--each', type=int, default=2, help='models of each of timm\'s families (default: 2)')
    parser.add_argument('--out', help='a JSON file for every single model')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    found = {}
    for lib,models in dict(torchvision=torchvision_models(), timm=timm_models(args.each), transformers=transformers_models()).items():
        found[lib] = {name: look(make) for name,make in progress_bar(list(models))}
    print('\n| library | models | split | layers | refused | not made |\n| --- | --- | --- | --- | --- | --- |')
    for lib,res in found.items():
        count,ns = Counter(k for k,_ in res.values()),[n for k,n in res.values() if k == 'split']
        print(f'| {lib} | {len(res)} | {count["split"]} | {min(ns)} .. {max(ns)} | {count["refused"]} | {count["not made"]} |')
    for res in found.values():
        for name,(kind,what) in res.items():
            if kind != 'split': print(f'{kind}: {name}, {str(what)[:250]}')
    if args.out:
        with open(args.out, 'w') as f: json.dump(found, f, indent=1)

if __name__ == '__main__': main()
