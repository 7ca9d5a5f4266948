def report(folder): return ''
def plot(folder, file): pass
