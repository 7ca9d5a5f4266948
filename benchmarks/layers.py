"""Apply `layerwise_split` to the models of torchvision, timm and transformers: count how many it splits, into how many layers, and which it
refuses and why. Models are made at their default size without memory (`torch.device('meta')`), so nothing is downloaded. The script checks
that each parameter is in exactly one group. It takes two minutes."""
import argparse
import json
import warnings
from collections import Counter

import torch
from fastcore.foundation import L
from fastprogress.fastprogress import progress_bar

from fastai_discrim.all import layerwise_split


def torchvision_models():
    "Yield every model of torchvision, except quantized models, which can't be trained"
    import torchvision.models as tv
    for name in tv.list_models():
        if not name.startswith('quantized'): yield name,lambda name=name: tv.get_model(name, weights=None, **backbone(name))

def backbone(name):
    "Return the argument that keeps detection and segmentation models from downloading weights"
    return dict(weights_backbone=None) if any(o in name for o in ('rcnn', 'retina', 'ssd', 'fcos', 'deeplab', 'fcn', 'lraspp')) else {}

def timm_models(each):
    "Yield the first `each` models of each family of timm"
    import timm
    seen = Counter()
    for name in timm.list_models():
        family = timm.model_entrypoint(name).__module__
        seen[family] += 1
        if seen[family] <= each: yield name,lambda name=name: timm.create_model(name, pretrained=False)

def transformers_models():
    "Yield every model of transformers for text classification, image classification or masked language modelling"
    from transformers.models.auto import modeling_auto as auto
    for kind in ('SEQUENCE_CLASSIFICATION', 'IMAGE_CLASSIFICATION', 'MASKED_LM'):
        for cfg,cls in getattr(auto, f'MODEL_FOR_{kind}_MAPPING').items():
            for c in L(cls, use_list=isinstance(cls, tuple)): yield c.__name__,lambda cfg=cfg, c=c: c(with_padding(cfg()))

def with_padding(cfg):
    "Return `cfg` with a padding token"
    if getattr(cfg, 'pad_token_id', 0) is None: cfg.pad_token_id = 0
    return cfg

def look(make):
    "Split one model; return 'split', 'refused', 'wrong' or 'not made', and the number of layers or the reason"
    try:
        try:
            with torch.device('meta'): model = make()
        # Some models read their weights while they are made, so they need memory
        except NotImplementedError: model = make()
    # Some models need a package, a configuration or memory that is missing here, which says nothing about the splitter
    except Exception as e: return 'not made',f'{type(e).__name__}: {e}'
    try: groups = layerwise_split(model)
    except ValueError as e: return 'refused',str(e)
    params = [p for g in groups for p in g]
    if len(params) != len(set(params)) or set(params) != set(model.parameters()): return 'wrong',len(groups)
    return 'split',len(groups)

def main():
    "Split all models, and print a table"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--each', type=int, default=2, help='models of each family of timm (default: 2)')
    parser.add_argument('--out', help='JSON file for the result of each model')
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
