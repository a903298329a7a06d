"""Layers over ranks: shaped links between network namespaces, what they give, schedules beside a blocking exchange."""
