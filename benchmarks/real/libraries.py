"""Networks of libraries that are neither timm nor torchvision; `requirements.txt` installs them.

Each row is a library's own class or function with small arguments, and the inputs' shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.real import requirements
from benchmarks.real.case import Case, spelled

_OURS = "benchmarks.real.factories"


@dataclass(frozen=True)
class Network:
    """`name` beside the library's in the table; `arch` as `--arch` has it."""

    name: str
    arch: str
    shapes: tuple[str, ...]
    arguments: dict[str, Any]


def _net(name: str, arch: str, /, *shapes: str, **arguments: Any) -> Network:
    return Network(name, arch, shapes, arguments)


def _same(names: str, arch: str, /, *shapes: str, **arguments: Any) -> list[Network]:
    """One row for each name, which stands in `arch` as {}."""
    return [_net(name, arch.format(name), *shapes, **arguments) for name in names.split()]


def _named(names: str, key: str, arch: str, /, *shapes: str, **arguments: Any) -> list[Network]:
    """One row for each name, which is the argument `key` of the factory."""
    return [_net(name, arch, *shapes, **{key: name}, **arguments) for name in names.split()]


_SEGMENTATION = "segmentation_models_pytorch:{}"
_MONAI = "monai.networks.nets:{}"
_TRANSFORMERS = f"{_OURS}:transformers"


def _hugging(model: str, config: str, /, *shapes: str, **values: Any) -> Network:
    return _net(model, _TRANSFORMERS, *shapes, model=model, config=config, **values)


LIBRARIES: dict[str, list[Network]] = {
    "segmentation-models-pytorch": [
        *_same("Unet UnetPlusPlus Linknet FPN PSPNet UPerNet Segformer", _SEGMENTATION,
               "3,64,64", encoder_name="resnet18", encoder_weights=None),
        *_same("PAN", _SEGMENTATION, "3,128,128", encoder_name="resnet18", encoder_weights=None),
        _net("MAnet-mobilenet_v2", _SEGMENTATION.format("MAnet"), "3,64,64",
             encoder_name="mobilenet_v2", encoder_weights=None),
        _net("DeepLabV3Plus-efficientnet-b0", _SEGMENTATION.format("DeepLabV3Plus"), "3,64,64",
             encoder_name="efficientnet-b0", encoder_weights=None),
        _net("DeepLabV3-resnet18", _SEGMENTATION.format("DeepLabV3"), "3,64,64",
             encoder_name="resnet18", encoder_weights=None),
    ],
    "monai": [
        _net("UNet-3d", _MONAI.format("UNet"), "1,16,16,16", spatial_dims=3, in_channels=1,
             out_channels=2, channels=(4, 8, 16), strides=(2, 2), num_res_units=2, norm="batch"),
        _net("BasicUNet", _MONAI.format("BasicUNet"), "1,32,32", spatial_dims=2, in_channels=1,
             out_channels=2, features=(8, 8, 16, 16, 32, 8), norm="batch"),
        _net("AttentionUnet", _MONAI.format("AttentionUnet"), "1,32,32", spatial_dims=2,
             in_channels=1, out_channels=2, channels=(8, 16, 32), strides=(2, 2)),
        _net("SegResNet-3d", _MONAI.format("SegResNet"), "1,16,16,16", spatial_dims=3,
             init_filters=8, norm="batch"),
        _net("DynUNet", _MONAI.format("DynUNet"), "1,32,32", spatial_dims=2, in_channels=1,
             out_channels=2, kernel_size=(3, 3, 3), strides=(1, 2, 2), upsample_kernel_size=(2, 2),
             filters=(8, 16, 32), norm_name="batch"),
        _net("VNet-3d", _MONAI.format("VNet"), "1,16,16,16"),
        _net("HighResNet-3d", _MONAI.format("HighResNet"), "1,12,12,12", norm_type="batch"),
        _net("DenseNet121", _MONAI.format("DenseNet121"), "1,64,64", spatial_dims=2, in_channels=1,
             out_channels=3),
        _net("SEResNet50", _MONAI.format("SEResNet50"), "1,64,64", spatial_dims=2, in_channels=1,
             num_classes=3),
        _net("EfficientNetBN", _MONAI.format("EfficientNetBN"), "1,64,64",
             model_name="efficientnet-b0", spatial_dims=2, in_channels=1, pretrained=False),
        _net("UNETR", _MONAI.format("UNETR"), "1,32,32", in_channels=1, out_channels=2,
             img_size=(32, 32), feature_size=8, hidden_size=48, mlp_dim=96, num_heads=4,
             norm_name="batch", spatial_dims=2),
    ],
    "transformers": [
        _hugging("ResNetForImageClassification", "ResNetConfig", "3,64,64",
                 hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 1, 1], embedding_size=16),
        _hugging("RegNetForImageClassification", "RegNetConfig", "3,64,64",
                 hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 1, 1], groups_width=8),
        _hugging("MobileNetV1ForImageClassification", "MobileNetV1Config", "3,64,64",
                 depth_multiplier=0.5),
        _hugging("MobileNetV2ForSemanticSegmentation", "MobileNetV2Config", "3,64,64",
                 depth_multiplier=0.5),
        _hugging("EfficientNetForImageClassification", "EfficientNetConfig", "3,64,64",
                 width_coefficient=0.5, depth_coefficient=0.5, hidden_dim=640, image_size=64),
        _hugging("LevitForImageClassification", "LevitConfig", "3,64,64", image_size=64,
                 hidden_sizes=[32, 48, 64], num_attention_heads=[2, 3, 4], depths=[1, 1, 1],
                 key_dim=[8, 8, 8]),
        _hugging("MobileViTForImageClassification", "MobileViTConfig", "3,64,64", image_size=64),
        _hugging("MobileViTV2ForSemanticSegmentation", "MobileViTV2Config", "3,64,64",
                 image_size=64, width_multiplier=0.5),
        _hugging("SegformerForSemanticSegmentation", "SegformerConfig", "3,64,64",
                 hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], decoder_hidden_size=32),
        _hugging("SwiftFormerForImageClassification", "SwiftFormerConfig", "3,64,64",
                 embed_dims=[16, 24, 32, 40], depths=[1, 1, 1, 1]),
        _hugging("HGNetV2ForImageClassification", "HGNetV2Config", "3,64,64"),
        _hugging("TextNetForImageClassification", "TextNetConfig", "3,64,64"),
        _hugging("Wav2Vec2ConformerForCTC", "Wav2Vec2ConformerConfig", "2000", hidden_size=32,
                 num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                 conv_dim=[16, 16, 16], conv_stride=[5, 4, 4], conv_kernel=[10, 8, 4],
                 num_feat_extract_layers=3, num_conv_pos_embeddings=16,
                 num_conv_pos_embedding_groups=4, vocab_size=20),
        _hugging("RTDetrForObjectDetection", "RTDetrConfig", "3,128,128", encoder_layers=1,
                 decoder_layers=1, num_queries=20, d_model=64, encoder_hidden_dim=64,
                 encoder_ffn_dim=64, decoder_ffn_dim=64, decoder_attention_heads=4,
                 encoder_attention_heads=4, decoder_in_channels=[64, 64, 64]),
    ],
    "ultralytics": [
        *(_net(f"{name}", "ultralytics.nn.tasks:DetectionModel", "3,96,96", cfg=f"{name}.yaml",
               verbose=False)
          for name in ("yolov5n", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n")),
        _net("yolov8n-cls", "ultralytics.nn.tasks:ClassificationModel", "3,64,64",
             cfg="yolov8n-cls.yaml", verbose=False),
        _net("yolo11n-seg", "ultralytics.nn.tasks:SegmentationModel", "3,96,96",
             cfg="yolo11n-seg.yaml", verbose=False),
        _net("yolov8n-pose", "ultralytics.nn.tasks:PoseModel", "3,96,96", cfg="yolov8n-pose.yaml",
             verbose=False),
    ],
    "speechbrain": [
        _net("ECAPA_TDNN", "speechbrain.lobes.models.ECAPA_TDNN:ECAPA_TDNN", "60,40",
             input_size=40, lin_neurons=32, channels=[32, 32, 32, 32, 64],
             attention_channels=16, se_channels=16),
        _net("Xvector", "speechbrain.lobes.models.Xvector:Xvector", "60,40", in_channels=40,
             tdnn_channels=[32, 32, 32, 32, 64], lin_neurons=32),
        _net("CRDNN", f"{_OURS}:crdnn", "64,40"),
    ],
    "tsai": [
        _net("InceptionTime", "tsai.models.InceptionTime:InceptionTime", "3,64", c_in=3, c_out=4),
        _net("ResNet", "tsai.models.ResNet:ResNet", "3,64", c_in=3, c_out=4),
        _net("FCN", "tsai.models.FCN:FCN", "3,64", c_in=3, c_out=4),
        _net("XceptionTime", "tsai.models.XceptionTime:XceptionTime", "3,64", c_in=3, c_out=4),
        _net("OmniScaleCNN", "tsai.models.OmniScaleCNN:OmniScaleCNN", "3,64", c_in=3, c_out=4,
             seq_len=64),
        _net("LSTM_FCN", "tsai.models.RNN_FCN:LSTM_FCN", "3,64", c_in=3, c_out=4, seq_len=64),
        _net("TSTPlus", "tsai.models.TSTPlus:TSTPlus", "3,64", c_in=3, c_out=4, seq_len=64,
             n_layers=2, d_model=32, n_heads=4, d_ff=64),
    ],
    "torch-geometric": _named(
        "DenseGCNConv DenseSAGEConv DenseGINConv DenseGraphConv", "layer", f"{_OURS}:DenseGraph",
        "x=9,12", "adjacency=9,9"
    ),
    "efficientnet-pytorch": _named(
        "efficientnet-b0", "model_name", "efficientnet_pytorch:EfficientNet.from_name", "3,64,64"
    ),
    "pytorch-tabnet": [_net("TabNet", f"{_OURS}:TabNet", "10")],
    "pretrainedmodels": [
        _net("bninception", "pretrainedmodels.models:bninception", "3,224,224", pretrained=None),
        _net("xception", "pretrainedmodels.models:xception", "3,96,96", pretrained=None),
        _net("se_resnet50", "pretrainedmodels.models:se_resnet50", "3,224,224",
             pretrained=None),
    ],
    "pytorchcv": [
        *_named("shufflenetv2_w1 igcv3_wd2 peleenet bam_resnet18 cbam_resnet18 diracnet18v2 "
                "sepreresnet18 condensenet74_c4_g4 fdmobilenet_w1 squeezenet_v1_1 "
                "airnet50_1x64d_r2 dla34 hardnet39ds menet108_8x1_g3",
                "name", "pytorchcv.model_provider:get_model", "3,224,224"),
        *_named("bisenet_resnet18_celebamaskhq sinet_cityscapes lednet_cityscapes "
                "erfnet_cityscapes fastscnn_cityscapes",
                "name", "pytorchcv.model_provider:get_model", "3,128,128", in_size=(128, 128)),
    ],
    "geffnet": _named(
        "mobilenetv3_large_075 mixnet_s efficientnet_lite0 fbnetc_100 spnasnet_100", "model_name",
        "geffnet:create_model", "3,64,64", pretrained=False
    ),
    "vit-pytorch": [
        _net("LeViT", "vit_pytorch.levit:LeViT", "3,64,64", image_size=64, num_classes=5,
             stages=2, dim=32, depth=1, heads=2, mlp_mult=2),
        _net("MobileViT", "vit_pytorch.mobile_vit:MobileViT", "3,64,64", image_size=(64, 64),
             dims=[32, 40, 48], channels=[8, 8, 12, 12, 16, 16, 20, 20, 24, 24, 64],
             num_classes=5),
    ],
    "dynamic-network-architectures": [
        _net("PlainConvUNet-2d", f"{_OURS}:nnunet", "1,32,32", kind="PlainConvUNet",
             dimensions=2),
        _net("ResidualEncoderUNet-3d", f"{_OURS}:nnunet", "1,16,16,16",
             kind="ResidualEncoderUNet", dimensions=3),
    ],
    "kornia": [
        _net("HardNet", "kornia.feature:HardNet", "1,32,32", pretrained=False),
        _net("SOSNet", "kornia.feature:SOSNet", "1,32,32", pretrained=False),
        _net("XFeatModel", "kornia.feature:XFeatModel", "1,64,64"),
    ],
    "open-clip-torch": [
        _net("ModifiedResNet", "open_clip.modified_resnet:ModifiedResNet", "3,64,64",
             layers=(1, 1, 1, 1), output_dim=32, heads=4, image_size=64, width=16),
    ],
    "conformer": [
        _net("Conformer", "conformer:Conformer", "24,32", dim=32, depth=2, dim_head=8, heads=4),
    ],
    "unet": [
        _net("UNet2D", "unet:UNet2D", "1,32,32", normalization="batch",
             num_encoding_blocks=3, out_channels_first_layer=8, padding=1),
    ],
    "facexlib": [
        _net("BiSeNet", "facexlib.parsing.bisenet:BiSeNet", "3,64,64", num_class=5),
        _net("ParseNet", "facexlib.parsing.parsenet:ParseNet", "3,64,64", in_size=64, out_size=64,
             min_feat_size=16),
    ],
    "python-doctr": [
        *_named("linknet_resnet18 fast_tiny db_mobilenet_v3_large", "model", f"{_OURS}:doctr",
                "3,64,64", part="detection", pretrained_backbone=False, exportable=True),
        *_named("crnn_mobilenet_v3_small", "model", f"{_OURS}:doctr", "3,32,128",
                part="recognition", pretrained_backbone=False, exportable=True),
        *_named("resnet31 textnet_tiny", "model", f"{_OURS}:doctr", "3,32,64",
                part="classification"),
    ],
    "facenet-pytorch": [
        _net("InceptionResnetV1", "facenet_pytorch:InceptionResnetV1", "3,96,96"),
    ],
    "braindecode": [
        *_same("EEGNet ShallowFBCSPNet Deep4Net EEGInceptionERP", "braindecode.models:{}",
               "8,512", n_chans=8, n_outputs=3, n_times=512),
    ],
}  # fmt: skip


def cases() -> list[Case]:
    found = []
    for library, networks in LIBRARIES.items():
        version = requirements.version_of(library)
        for network in networks:
            words = ["--arch", network.arch]
            for key, value in network.arguments.items():
                words += ["--arch-arg", f"{key}={spelled(value)}"]
            for shape in network.shapes:
                words += ["--input-shape", shape]
            found.append(
                Case(f"{library}/{network.name}", library, version, words=tuple(words), needs=True)
            )
    return found
