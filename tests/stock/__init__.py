"Comparisons with stock fastai, in processes that have imported no more than they are told to"
