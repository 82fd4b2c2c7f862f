"""Pretraining without labels, on sequences of frames with their actions.

Objectives: SPR (:mod:`.spr`), inverse dynamics (:mod:`.inverse`) and temporal contrast
(:mod:`.contrastive`), alone or weighted together (:mod:`.network`).
"""
