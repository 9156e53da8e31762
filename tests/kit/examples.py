"""How many values a property test tries: all of them in the CI tier, a share of them in the default one."""

share = 1


def examples(count):
    return max(10, count // share)
