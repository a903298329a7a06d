def lower(layer, context):
    raise NotImplementedError
