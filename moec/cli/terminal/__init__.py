"""The live view of adapting layers (`moec top`): which journals, what is known of each, and how it is drawn."""
