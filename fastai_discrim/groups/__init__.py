"Split models into layer groups; check, name, list and change the layer groups of a learner"
