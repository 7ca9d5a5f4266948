"Rates over time as a picture"
__all__ = []

import matplotlib.pyplot as plt
import numpy as np

# Inches: height of the rates, of a strip, and of all strips, however many there are
RATES_HEIGHT,STRIP_HEIGHT,STRIPS_HEIGHT = 2.6,0.26,4.2
WIDTH = 7
# Inches for the title, the numbers of the phases and the labels of the axes
MARGINS = 1.1
# Points: what a phase's number needs, and a strip's name at least and at most
NUMBER_WIDTH,MIN_FONT,MAX_FONT = 14,6,10
# On a log scale no rate is shown that is so many times below the lowest peak: the end of a cosine would flatten the rest
LOWEST_SHOWN = 200
# Points: least distance of two lines that mark phases
LINE_GAP = 4
# Points: width of a line, and of all lines that lie on each other
LINE_WIDTH,LINES_WIDTH = 1.8,7


def plot_lrs(
    lrs:np.ndarray, # Rates, shape [steps, groups], 0 where frozen
    names=None, # A name for each layer group, input first
    n_iter:int|None=None, # Steps an epoch: the axis then counts epochs
    *,
    steps:np.ndarray|None=None, # Position of each step in the fit, shape [steps], ascending; None for 0, 1, 2, ...
    n_steps:int|None=None, # Steps of the whole fit, where `lrs` has not all of them
    phase_ends:list=(), # Steps at which phases end, the last one too
    title:str='', # What stands above
    yscale:str='log', # 'log', or 'linear', on which a slanted triangle is a triangle
    axs=None, # Two axes, for the rates and for what trains
    figsize:tuple|None=None, # Inches
):
    "Plot rates above a strip a layer group: coloured where it trains, grey where it is frozen. Mark where phases end"
    if yscale not in ('log', 'linear'): raise ValueError(f"yscale={yscale!r}: expected 'log' or 'linear'")
    n = lrs.shape[1]
    steps = np.arange(len(lrs)) if steps is None else np.asarray(steps)
    n_steps = max(n_steps or 0, int(steps[-1])+1)
    if axs is None: axs = _axes(n, figsize)
    colors,widths = [plt.cm.viridis(0.9 * i/max(n-1, 1)) for i in range(n)],_line_widths(lrs)
    x,y = _with_gaps(steps, np.where(lrs > 0, lrs, np.nan))
    ran = np.zeros(n_steps, dtype=bool)
    ran[steps] = True
    for i,(color,width) in enumerate(zip(colors, widths)):
        axs[0].plot(x/(n_iter or 1), y[:,i], color=color, lw=width)
        trains = np.zeros(n_steps, dtype=bool)
        trains[steps] = lrs[:,i] > 0
        for start,length in _spans(ran, n_iter): axs[1].barh(i, length, left=start, color='0.9', height=0.8)
        axs[1].broken_barh(_spans(trains, n_iter), (i-0.4, 0.8), color=color)
    axs[0].set(yscale=yscale, ylabel='learning rate', xlim=(0, n_steps/(n_iter or 1)))
    axs[0].set_ylim(_limits(lrs, yscale))
    axs[1].set(xlabel='epoch' if n_iter else 'iteration', xlim=axs[0].get_xlim(), ylim=(-0.6, n-0.4))
    axs[1].set_title('training (coloured) or frozen (grey)', fontsize='medium', loc='left')
    _label_strips(axs[1], names, n)
    _mark_phases(axs[0], np.array([0, *phase_ends])/(n_iter or 1), n_steps/(n_iter or 1))
    if title: axs[0].set_title(title, fontsize='medium', loc='left')
    return axs

def _limits(lrs, yscale):
    "Return the lowest and the highest rate that are shown"
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
    "Put a nan where steps are missing, so that no line goes on over them"
    gaps = np.flatnonzero(np.diff(steps) > 1) + 1
    return np.insert(steps.astype(float), gaps, np.nan),np.insert(ys, gaps, np.nan, axis=0)

def _spans(flags, n_iter):
    "Return start and length, on the axis, of each stretch in which `flags` is true"
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags, [0]]))) / (n_iter or 1)
    return [(start, end-start) for start,end in zip(edges[::2], edges[1::2])]

def _line_widths(lrs):
    "Return a width for each group's line: of those that lie on each other the one below is wider, so that each is seen"
    def _coincide(i, j):
        both = (lrs[:,i] > 0) & (lrs[:,j] > 0)
        return both.any() and np.allclose(lrs[both,i], lrs[both,j], rtol=1e-3)
    n = lrs.shape[1]
    above = [sum(_coincide(i, j) for j in range(i+1, n)) for i in range(n)]
    step = min(2, (LINES_WIDTH-LINE_WIDTH)/max(*above, 1))
    return [LINE_WIDTH + step*k for k in above]

def _points(ax):
    "Return width and height of `ax` in points, before its labels take their part"
    box = ax.get_window_extent()
    return box.width*72/ax.figure.dpi,box.height*72/ax.figure.dpi

def _label_strips(ax, names, n):
    "Name the strips in letters for which there is room; where there is too little, only every second one, third one, and so on"
    # The labels around the axes take their part
    room = 0.6*_points(ax)[1]/n
    every = max(1, int(np.ceil(MIN_FONT/room)))
    # The head always
    shown = range((n-1) % every, n, every)
    labels = [f'{i} {names[i]}' if names else str(i) for i in shown]
    ax.set_yticks(shown, labels, fontsize=np.clip(room*every, MIN_FONT, MAX_FONT))

def _mark_phases(ax, edges, length):
    "Draw a line between two phases, and number them above `ax`, which is `length` long"
    if len(edges) < 3: return
    per_point = length/_points(ax)[0]
    widths = np.diff(edges)
    # Lines nearer to each other would be a grey area
    apart = np.maximum(widths[:-1], widths[1:]) >= LINE_GAP*per_point
    ax.vlines(edges[1:-1][apart], 0, 1, transform=ax.get_xaxis_transform(), color='0.6', lw=0.7, ls=':', zorder=0.5)
    labels = phase_labels(edges, NUMBER_WIDTH*per_point)
    top = ax.secondary_xaxis('top')
    top.set_xticks([where for where,_ in labels], [text for _,text in labels], fontsize='small')
    top.tick_params(length=0, pad=1)
    ax.text(-0.01, 1.01, 'phase', transform=ax.transAxes, ha='right', va='bottom', fontsize='small')

def phase_labels(
    edges, # Where phases begin and end, ascending
    room:float, # What a number needs
) -> list: # Pairs of place and text
    "Number the phases, those that are short together: '1-4'"
    runs,joins = [],False
    for i in range(len(edges)-1):
        short = edges[i+1]-edges[i] < room
        if short and joins: runs[-1][1] = i
        else: runs.append([i, i])
        # Two numbers and a dash need three times the room of one
        joins = short and edges[i+1]-edges[runs[-1][0]] < 3*room
    # Where there is next to no room, none
    runs = [(a, b) for a,b in runs if edges[b+1]-edges[a] >= room/2]
    return [((edges[a]+edges[b+1])/2, f'{a+1}' if a == b else f'{a+1}-{b+1}') for a,b in runs]
