"Plot learning rates over time"
__all__ = []

import matplotlib.pyplot as plt
import numpy as np

# Inches: height of the rates, of the strip of one group, and of all strips at most
RATES_HEIGHT,STRIP_HEIGHT,STRIPS_HEIGHT = 2.6,0.26,4.2
WIDTH = 7
# Inches for the title, the numbers of the phases and the labels of the axes
MARGINS = 1.1
# Points: width of a phase's number; smallest and largest font of the strips' names
NUMBER_WIDTH,MIN_FONT,MAX_FONT = 14,6,10
# A log scale ends this many times below the lowest peak rate, as the end of a cosine would flatten the rest
LOWEST_SHOWN = 200
# Points: least distance between two lines that mark phases
LINE_GAP = 4
# Points: width of a line, and of the widest of several lines that coincide
LINE_WIDTH,LINES_WIDTH = 1.8,7


def plot_lrs(
    lrs:np.ndarray, # Rates, shape [steps, groups], 0 where frozen
    names=None, # A name for each layer group, input first
    n_iter:int|None=None, # Steps per epoch, for an axis in epochs; None for an axis in steps
    *,
    steps:np.ndarray|None=None, # Position of each step in the fit, shape [steps], ascending; None for 0, 1, 2, ...
    n_steps:int|None=None, # Steps of the whole fit, if `lrs` lacks some of them
    phase_ends:list=(), # Steps at which phases end, including the last phase
    title:str='', # Title of the plot
    yscale:str='log', # 'log', or 'linear', on which a slanted triangle looks like one
    axs=None, # Two axes, for the rates and for what trains; None to make them
    figsize:tuple|None=None, # Width and height in inches
):
    "Plot rates above one strip for each layer group: coloured where it trains, grey where it is frozen. Mark where phases end"
    if yscale not in ('log', 'linear'): raise ValueError(f"yscale={yscale!r}: expected 'log' or 'linear'")
    steps = np.arange(len(lrs)) if steps is None else np.asarray(steps)
    # The x axis counts units of so many steps
    n,unit = lrs.shape[1],n_iter or 1
    length = max(n_steps or 0, int(steps[-1])+1)/unit
    if axs is None: axs = _axes(n, figsize)
    rates,training = axs
    x,y = _with_gaps(steps, np.where(lrs > 0, lrs, np.nan))
    for i,width in enumerate(_line_widths(lrs)):
        color = plt.cm.viridis(0.9 * i/max(n-1, 1))
        rates.plot(x/unit, y[:,i], color=color, lw=width)
        for start,span in _spans(steps, unit): training.barh(i, span, left=start, color='0.9', height=0.8)
        training.broken_barh(_spans(steps[lrs[:,i] > 0], unit), (i-0.4, 0.8), color=color)
    rates.set(yscale=yscale, ylabel='learning rate', xlim=(0, length))
    rates.set_ylim(_limits(lrs, yscale))
    training.set(xlabel='epoch' if n_iter else 'iteration', xlim=(0, length), ylim=(-0.6, n-0.4))
    training.set_title('training (coloured) or frozen (grey)', fontsize='medium', loc='left')
    _label_strips(training, names, n)
    _mark_phases(rates, np.array([0, *phase_ends])/unit, length)
    if title: rates.set_title(title, fontsize='medium', loc='left')
    return axs

def _limits(lrs, yscale):
    "Return the lowest and the highest rate of the axis"
    peaks = lrs.max(0)
    peaks = peaks[peaks > 0]
    if yscale == 'linear': return 0,1.05*peaks.max()
    return max(lrs[lrs > 0].min(), peaks.min()/LOWEST_SHOWN)/1.2,1.2*peaks.max()

def _axes(n, figsize):
    "Make the two axes for `n` layer groups"
    strips = min(STRIP_HEIGHT*(n+1), STRIPS_HEIGHT)
    figsize = figsize or (WIDTH, RATES_HEIGHT+strips+MARGINS)
    return plt.subplots(2, 1, figsize=figsize, sharex=True, layout='constrained', height_ratios=[RATES_HEIGHT, strips])[1]

def _with_gaps(steps, ys):
    "Insert a nan where steps are missing, so that lines have a gap there"
    gaps = np.flatnonzero(np.diff(steps) > 1) + 1
    return np.insert(steps.astype(float), gaps, np.nan),np.insert(ys, gaps, np.nan, axis=0)

def _spans(steps, unit):
    "Return start and length, in units of the axis, of each run of consecutive `steps`"
    if not len(steps): return []
    runs = np.split(steps, np.flatnonzero(np.diff(steps) > 1) + 1)
    return [(run[0]/unit, (run[-1]+1)/unit - run[0]/unit) for run in runs]

def _line_widths(lrs):
    "Return a width for each group's line. Of lines that coincide, those drawn first are wider, so that each can be seen"
    def _coincide(i, j):
        both = (lrs[:,i] > 0) & (lrs[:,j] > 0)
        return both.any() and np.allclose(lrs[both,i], lrs[both,j], rtol=1e-3)
    n = lrs.shape[1]
    above = [sum(_coincide(i, j) for j in range(i+1, n)) for i in range(n)]
    step = min(2, (LINES_WIDTH-LINE_WIDTH)/max(*above, 1))
    return [LINE_WIDTH + step*k for k in above]

def _points(ax):
    "Return width and height of `ax` in points, before the layout makes room for its labels"
    box = ax.get_window_extent()
    return box.width*72/ax.figure.dpi,box.height*72/ax.figure.dpi

def _label_strips(ax, names, n):
    "Name the strips in a font that fits. If the smallest font doesn't fit, name every second strip, every third, and so on"
    # The layout will take 40 % of the height for the labels around the axes
    room = 0.6*_points(ax)[1]/n
    every = max(1, int(np.ceil(MIN_FONT/room)))
    # Always name the head
    shown = range((n-1) % every, n, every)
    labels = [f'{i} {names[i]}' if names else str(i) for i in shown]
    ax.set_yticks(shown, labels, fontsize=np.clip(room*every, MIN_FONT, MAX_FONT))

def _mark_phases(ax, edges, length):
    "Draw lines between phases, and number the phases above `ax`, whose x axis has this `length`"
    if len(edges) < 3: return
    per_point = length/_points(ax)[0]
    widths = np.diff(edges)
    # Lines that are nearer to each other would look like a grey area
    apart = np.maximum(widths[:-1], widths[1:]) >= LINE_GAP*per_point
    ax.vlines(edges[1:-1][apart], 0, 1, transform=ax.get_xaxis_transform(), color='0.6', lw=0.7, ls=':', zorder=0.5)
    labels = phase_labels(edges, NUMBER_WIDTH*per_point)
    top = ax.secondary_xaxis('top')
    top.set_xticks([where for where,_ in labels], [text for _,text in labels], fontsize='small')
    top.tick_params(length=0, pad=1)
    # On the left it would touch the label of a rate at the top of the axis
    ax.text(1.01, 1.01, 'phase', transform=ax.transAxes, ha='left', va='bottom', fontsize='small')

def phase_labels(edges, room:float) -> list:
    "Number the phases between `edges`, short phases together, '1-4', if a number is `room` wide; return pairs of position and text"
    runs,joins = [],False
    for i in range(len(edges)-1):
        short = edges[i+1]-edges[i] < room
        if short and joins: runs[-1][1] = i
        else: runs.append([i, i])
        # Two numbers and a dash need three times the room of one
        joins = short and edges[i+1]-edges[runs[-1][0]] < 3*room
    # Leave out numbers that have less than half of their room
    runs = [(a, b) for a,b in runs if edges[b+1]-edges[a] >= room/2]
    return [((edges[a]+edges[b+1])/2, f'{a+1}' if a == b else f'{a+1}-{b+1}') for a,b in runs]
