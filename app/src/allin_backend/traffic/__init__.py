"""The ``allin-traffic`` command: what people do with the platform, so that graphs have something to show.

``people`` knows what one person does, ``crowd`` when somebody does something, ``shape`` how that changes over a day.
"""
