"""Every kernel of a call beside float64: what each wrote, against what its own inputs make of it."""
