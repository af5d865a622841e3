"""Pages and pictures that are made from the code when the site is built (``make docs``); none of them is committed."""
