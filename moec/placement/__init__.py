"""Which ranks hold which experts: problems, plans, and two planners behind one interface."""
