"""Returns its inputs."""


def run(inputs):
    return inputs
