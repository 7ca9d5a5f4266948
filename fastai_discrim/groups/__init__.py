"Layer groups: what the layers of a model are, and how a learner's groups are checked, named, shown and changed"
