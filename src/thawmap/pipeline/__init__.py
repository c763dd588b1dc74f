"""What each verb does, as a list of calls. Here, and only here, the halls meet; `thawmap` names them."""
