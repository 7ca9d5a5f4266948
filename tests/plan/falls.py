"Ways in which rates can't fall, and what is said of them"

ODD_FALLS = {
    'two': (dict(span=10, decay=.9), r'span=10 and decay=0.9: expected one of them'),
    'with a factor': (dict(factor=3, span=10), r'factor=3 and span=10: expected one of them'),
    'with the usual factor': (dict(factor=2.6, span=10), r'factor=2.6 and span=10: expected one of them'),
    'span': (dict(span=.5), r'span=0.5: expected a number of at least 1'),
    'decay': (dict(decay=1.1), r'decay=1.1: expected a number above 0 and below 1'),
    'decay 0': (dict(decay=0), r'decay=0: expected a number above 0 and below 1'),
    'min_scale': (dict(min_scale=-.1), r'min_scale=-0.1: expected a number of at least 0 and below 1'),
    'min_scale 1': (dict(min_scale=1), r'min_scale=1: expected a number of at least 0 and below 1'),
    'text': (dict(span='10'), r"span='10': expected a number of at least 1, not a str"),
}
