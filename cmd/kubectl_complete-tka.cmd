@rem kubectl-tka: kubectl runs this for `kubectl tka <TAB>`, with the words so far.
@setlocal
@rem The program stands beside this file, or on PATH where krew has linked to it.
@set "tka=%~dp0kubectl-tka"
@if not exist "%tka%.exe" if not exist "%tka%.cmd" set "tka=kubectl-tka"
@"%tka%" __complete %*
