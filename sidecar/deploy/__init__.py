"""The way into other people's files: pods and compose projects that get a sidecar without their applications noticing.

`names` are the constants that image, manifests, rules and sidecar agree upon. What is here reads what people have
written, adds to it and gives it back; whatever it does not understand it leaves as it was, byte for byte, or refuses.
"""
