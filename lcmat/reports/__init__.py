"""Tables and figures, from records alone: whoever has the records can make them anew, without data or networks."""
