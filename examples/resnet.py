"""A small residual network for images [He et al. 2016], to be imported.

    net = resnet(classes=10)                    # an ordinary layer: net.init, net.apply
"""

from fnnet import layers, ops
from fnnet.layers import BatchNorm, Conv, Dense, GlobalAvgPool, Residual, Serial


def block(features, strides=1):
    """relu(x + f(x)), where f is two 3×3 convolutions. With strides, a 1×1 convolution gives x the same shape."""
    body = Serial(Conv(features, strides=strides, bias=False), BatchNorm(relu=True), Conv(features, bias=False), BatchNorm())
    alike = Serial(Conv(features, kernel=1, strides=strides, bias=False), BatchNorm()) if strides != 1 else None
    return Serial(Residual(body, shortcut=alike), ops.relu)


def resnet(classes, widths=(16, 32, 64), depth=3):
    """x [n height width c] → scores [n classes]: stages of `depth` blocks, each stage at half the resolution and with more channels than
    the previous one. widths=(16, 32, 64) and depth=3 is ResNet-20 for CIFAR-10, 0.27 million parameters."""
    parts = [Conv(widths[0], bias=False), BatchNorm(relu=True)]
    for stage, features in enumerate(widths):
        parts += [block(features, strides=1 + (i == 0 and stage > 0)) for i in range(depth)]
    return layers.Serial(*parts, GlobalAvgPool(), Dense(classes))
