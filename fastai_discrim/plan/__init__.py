"Plans as plain data: phases, rates, schedules, and their pictures; nothing here knows a `Learner`"
