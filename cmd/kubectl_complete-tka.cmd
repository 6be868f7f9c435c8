@rem kubectl-tka: kubectl runs this for `kubectl tka <TAB>`, with the words so far.
@"%~dp0kubectl-tka" __complete %*
