"""Which ranks hold which experts: problems, plans, two planners behind one interface, and tables of slots."""
