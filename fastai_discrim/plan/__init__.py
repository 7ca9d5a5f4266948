"Describe a fit as plain data: phases, rates, schedules and plots. No module of this folder depends on `Learner`"
