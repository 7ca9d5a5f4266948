"Small versions of all common architectures, with their inputs and layers"
from copy import deepcopy
from functools import cache, partial

import timm
import torch
import torchvision.models as tv
import transformers as tf
from fastai.collab import EmbeddingDotBias
from fastai.data.core import DataLoaders
from fastai.tabular.model import TabularModel
from fastai.text.models import AWD_LSTM, awd_lstm_clas_config, awd_lstm_lm_config
from fastai.text.models.core import get_language_model, get_text_classifier
from fastai.torch_core import set_seed
from fastai.vision.learner import create_timm_model, create_unet_model, create_vision_model
from fastai.vision.models.xresnet import xresnet18
from torch import nn
from torchvision.models.convnext import CNBlockConfig


def image(n=32): return torch.rand(2, 3, n, n)
def tokens(n=12): return torch.randint(3, 50, (2, n))

def vgg():
    "Without the 400 MB of the published head"
    with torch.device('meta'): m = tv.VGG(nn.Sequential(), init_weights=False)
    m.features = tv.vgg.make_layers([8, 'M', 16], batch_norm=True)
    m.classifier = nn.Sequential(nn.Linear(16*49, 8), nn.ReLU(), nn.Linear(8, 3))
    return m

class Out(nn.Module):
    "Return the output of a transformers model as a tensor"
    def __init__(self, model): super().__init__(); self.model = model
    def forward(self, x):
        out = self.model(x)
        return out if isinstance(out, torch.Tensor) else out[0]

def hf(kind, config, **kw):
    small = dict(vocab_size=50, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
                 max_position_embeddings=40)
    return lambda: Out(getattr(tf, kind)(getattr(tf, f'{config}Config')(**{**small, 'pad_token_id': 0, **kw})))

GPT2 = dict(n_embd=16, n_layer=3, n_head=2, n_positions=40)
T5 = dict(d_model=16, d_kv=8, d_ff=32, num_layers=3, num_heads=2, num_decoder_layers=2)
VIT = dict(img_size=32, patch_size=8, depth=4, embed_dim=16, num_heads=2)
CNN = [CNBlockConfig(8, 16, 1), CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 1)]

# For each model: a function that makes it, its input, its number of layers, and the prefixes of its stem and head
MODELS = {
    # torchvision
    'tv resnet18': (tv.resnet18, image, 1+8+1, ('conv1', 'bn1'), 'fc'),
    'tv vgg': (vgg, image, 2+1, ('features.0', 'features.1'), 'classifier'),
    'tv densenet': (partial(tv.DenseNet, 8, (2, 2, 2), 16), image, 1+2+1+2+1+2+1, ('features.conv0', 'features.norm0'), 'classifier'),
    'tv convnext': (partial(tv.ConvNeXt, CNN, num_classes=3), image, 1+1+1+2+1+1+1, 'features.0', 'classifier'),
    'tv vit': (partial(tv.VisionTransformer, 32, 8, 4, 2, 16, 32, num_classes=3), image, 1+4+1,
               ('class_token', 'conv_proj', 'encoder.pos'), 'heads'),
    'tv mobilenet_v2': (partial(tv.mobilenet_v2, width_mult=.25), image, 1+17+1+1, 'features.0.', 'classifier'),
    'tv mobilenet_v3': (tv.mobilenet_v3_small, image, 1+11+1+1, 'features.0.', 'classifier'),
    'tv efficientnet': (tv.efficientnet_b0, image, 1+16+1+1, 'features.0.', 'classifier'),
    'tv swin': (partial(tv.SwinTransformer, [4, 4], 8, [2, 2], [2, 2], [2, 2], num_classes=3), image, 1+2+1+2+1, 'features.0.', 'head'),
    'tv squeezenet': (tv.squeezenet1_1, image, 1+8+1, 'features.0.', 'classifier'),
    'tv shufflenet': (tv.shufflenet_v2_x0_5, image, 1+16+1, 'conv1', ('conv5', 'fc')),
    'tv regnet': (tv.regnet_y_400mf, image, 1+16+1, 'stem', 'fc'),
    # fastai
    'vision_learner resnet18': (lambda: create_vision_model(tv.resnet18, 3, pretrained=False), image, 1+8+1, ('0.0', '0.1'), '1.'),
    'vision_learner convnext': (lambda: create_timm_model('convnext_atto', 3, pretrained=False)[0], image, 1+12+1, '0.model.stem', '1.'),
    'vision_learner vit': (lambda: create_timm_model('vit_tiny_patch16_224', 3, pretrained=False, **VIT)[0], image, 1+4+1,
                           '0.model', '1.'),
    'unet_learner resnet18': (lambda: create_unet_model(tv.resnet18, 2, (32, 32), pretrained=False), image, 1+8+1, ('layers.0.0',
                              'layers.0.1'), 'layers.'),
    'xresnet18': (partial(xresnet18, n_out=3), image, 3+8+1, '0.', '11.'),
    'AWD-LSTM classifier': (lambda: get_text_classifier(AWD_LSTM, 50, 3, config=dict(awd_lstm_clas_config, emb_sz=8, n_hid=12)), tokens, 5,
                            '0.module.encoder', '1.'),
    'AWD-LSTM language model': (lambda: get_language_model(AWD_LSTM, 50, config=dict(awd_lstm_lm_config, emb_sz=8, n_hid=12)), tokens, 4,
                                '0.rnns.0', ('0.encoder', '1.')),
    'tabular': (lambda: TabularModel([(50, 3), (50, 4)], 0, 3, [20, 10]), partial(tokens, 2), 1+2+1, ('embeds', 'bn_cont'), 'layers.2'),
    'collaborative': (lambda: EmbeddingDotBias(5, 50, 50), partial(tokens, 2), 2, ('u_weight', 'i_weight'), ('u_bias', 'i_bias')),
    # timm
    'timm resnet': (lambda: timm.create_model('resnet10t', num_classes=3), image, 1+4+1, ('conv1', 'bn1'), 'fc'),
    'timm convnext': (lambda: timm.create_model('convnext_atto', num_classes=3), image, 1+12+1, 'stem', 'head'),
    'timm vit': (lambda: timm.create_model('vit_tiny_patch16_224', num_classes=3, **VIT), image, 1+4+1,
                 ('cls_token', 'pos_embed', 'patch_embed'), 'head'),
    'timm swin': (lambda: timm.create_model('swin_tiny_patch4_window7_224', img_size=32, embed_dim=8, depths=(1, 2), num_heads=(1, 2),
                  window_size=4),
                  image, 1+3+1, 'patch_embed', 'head'),
    'timm efficientnet': (lambda: timm.create_model('efficientnet_lite0', num_classes=3), image, 1+16+1, ('conv_stem', 'bn1'),
                          'classifier'),
    'timm mobilenetv3': (lambda: timm.create_model('mobilenetv3_small_050', num_classes=3), image, 1+12+1, ('conv_stem', 'bn1'),
                         ('conv_head', 'classifier')),
    'timm regnet': (lambda: timm.create_model('regnetx_002', num_classes=3), image, 1+13+1, 'stem', 'head'),
    'timm mixer': (lambda: timm.create_model('mixer_s32_224', img_size=32), image, 1+8+1, 'stem', 'head'),
    # transformers
    'bert': (hf('BertForSequenceClassification', 'Bert'), tokens, 1+3+1+1, 'model.bert.embeddings', 'model.classifier'),
    'bert masked': (hf('BertForMaskedLM', 'Bert'), tokens, 1+3+1, 'model.bert.embeddings', ('model.cls', 'model.bert.embeddings.word')),
    'roberta': (hf('RobertaForSequenceClassification', 'Roberta'), tokens, 1+3+1, 'model.roberta.embeddings', 'model.classifier'),
    'xlm-roberta': (hf('XLMRobertaForSequenceClassification', 'XLMRoberta'), tokens, 1+3+1, 'model.roberta.embeddings', 'model.classifier'),
    'camembert masked': (hf('CamembertForMaskedLM', 'Camembert'), tokens, 1+3+1, 'model.roberta.embeddings',
                         ('model.lm_head', 'model.roberta.embeddings.word')),
    'opt': (hf('OPTForSequenceClassification', 'OPT', ffn_dim=32, word_embed_proj_dim=16), tokens, 1+3+1, 'model.model.decoder.embed',
            'model.score'),
    'distilbert': (hf('DistilBertForSequenceClassification', 'DistilBert', dim=16, n_layers=3, n_heads=2, hidden_dim=32), tokens, 1+3+1,
                   'model.distilbert.embeddings', ('model.pre_classifier', 'model.classifier')),
    'deberta': (hf('DebertaForSequenceClassification', 'Deberta'), tokens, 1+3+1, 'model.deberta.embeddings', ('model.pooler',
                'model.classifier')),
    'deberta v2': (hf('DebertaV2ForSequenceClassification', 'DebertaV2', relative_attention=True, norm_rel_ebd='layer_norm',
                   position_buckets=8),
                   tokens, 1+3+1, ('model.deberta.embeddings', 'model.deberta.encoder.rel', 'model.deberta.encoder.LayerNorm'),
                   ('model.pooler', 'model.classifier')),
    'electra': (hf('ElectraForSequenceClassification', 'Electra', embedding_size=8), tokens, 1+3+1, 'model.electra.embeddings',
                'model.classifier'),
    'gpt2': (hf('GPT2ForSequenceClassification', 'GPT2', **GPT2), tokens, 1+3+1, 'model.transformer.w', 'model.score'),
    'gpt2 language model': (hf('GPT2LMHeadModel', 'GPT2', **GPT2), tokens, 1+3+1, 'model.transformer.wpe', 'model.transformer.wte'),
    't5 encoder': (hf('T5EncoderModel', 'T5', **T5), tokens, 1+3, 'model.shared', ('model.encoder.block.2', 'model.encoder.final')),
    't5 tagger': (hf('T5ForTokenClassification', 'T5', **T5), tokens, 1+3+1, 'model.transformer.shared', 'model.classifier'),
    'vit of transformers': (hf('ViTForImageClassification', 'ViT', image_size=32, patch_size=8), image, 1+3+1, 'model.vit.embeddings',
                            'model.classifier'),
}


@cache
@torch.no_grad()
def _built(name):
    "Make a model and its input; without gradients, so that the weights of an AWD-LSTM can be copied"
    set_seed(3)
    make,x,*_ = MODELS[name]
    return make(),x()

def build(name):
    "Return a model, an input of two items, its number of layers, and the names of its first and last layers"
    # Copying random weights takes a tenth of the time of drawing them
    return *deepcopy(_built(name)),*MODELS[name][2:]

def two_items(x):
    "Put the two items of `x` in loaders of one batch"
    ds = [(o, torch.tensor(0)) for o in x]
    return DataLoaders.from_dsets(ds, ds, bs=2, device='cpu', num_workers=0)
